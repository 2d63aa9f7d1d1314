"""An engine that an interpreter finds and must not import."""

from pathlib import Path


def installed_sglang(folder: Path, version: str | None) -> dict[str, str]:
    """Install it; return the environment in which python finds it. Without a version it is a bare package."""
    (folder / "sglang").mkdir()
    (folder / "sglang" / "__init__.py").write_text("raise SystemExit('must not be imported')")
    if version is not None:
        (folder / "sglang.dist-info").mkdir()
        (folder / "sglang.dist-info" / "METADATA").write_text(f"Name: sglang\nVersion: {version}\n")
    return {"PYTHONPATH": str(folder)}
