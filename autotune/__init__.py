"""autotune: search the launch flags of an LLM engine against service-level objectives."""

__version__ = "0.1.0"
