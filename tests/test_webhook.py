import sys
from pathlib import Path

import pytest

from autotune.cli import main
from autotune.errors import ConfigError, InfrastructureError, StudyError
from autotune.events import PhaseBegan, Recovered, TrialEnded
from autotune.record import Role, TrialRecord
from autotune.search.ledger import AskedTrial
from autotune.webhook import ATTEMPTS, Webhook
from tests.support.histories import improved
from tests.support.ports import free_port
from tests.support.trials import STUDY, failed, measured, numbered
from tests.support.webhook_receiver import SECRET, Receiver, webhook_receiver

INPUTS = ("search_spaces/llama-8b-1xh100.yaml", "slo/ttft-p95-10s-at-50.yaml")


def _webhook(receiver: Receiver, told: list[str] | None = None) -> Webhook:
    return Webhook(receiver.url, STUDY, (told if told is not None else []).append, pause_s=0.0)


def _ended(number: int, record: TrialRecord) -> TrialEnded:
    return TrialEnded(AskedTrial(number, record.role, record.to_candidate()), record, None)


def test_the_first_candidate_that_meets_the_slo_is_told_once() -> None:
    seen: list[object] = []
    with webhook_receiver() as receiver, _webhook(receiver) as webhook:
        observe = webhook.beside(seen.append)
        observe(PhaseBegan(AskedTrial(1, Role.SEARCH, measured(1.0).to_candidate()), "launch"))
        for number, record in enumerate(
            (measured(90.0, ttft_s=3.0, role=Role.BASELINE), failed(), measured(120.0), measured(130.0))
        ):
            observe(_ended(number, record))

    (message,) = receiver.messages
    assert len(seen) == 5
    assert message["event"] == "first_feasible"
    assert (message["study"], message["trial"], message["is_simulated"]) == ("s", 2, True)
    assert message["text"].startswith("SIMULATED s: the first candidate meets the SLO: trial 2 (")
    assert "120 tok/s" in message["text"]


def test_a_baseline_that_meets_the_slo_is_called_so() -> None:
    with webhook_receiver() as receiver, _webhook(receiver) as webhook:
        webhook.beside(lambda _: None)(_ended(0, measured(9.0, role=Role.BASELINE, is_simulated=False)))

    assert "trial 0 (the baseline), output_throughput" in receiver.messages[0]["text"]
    assert "SIMULATED" not in receiver.messages[0]["text"]


def test_what_an_earlier_call_has_told_is_not_told_again() -> None:
    with webhook_receiver() as receiver, _webhook(receiver) as webhook:
        webhook.catch_up(numbered(measured(1.0)))
        webhook.beside(lambda _: None)(_ended(1, measured(120.0)))

    assert receiver.messages == []


def test_the_answer_is_told() -> None:
    with webhook_receiver() as receiver, _webhook(receiver) as webhook:
        webhook.finish(improved())

    (message,) = receiver.messages
    assert (message["event"], message["meets_slo"], message["trial"]) == ("finished", True, 2)
    assert "Improved: " in message["text"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyboardInterrupt(), "s has stopped by Ctrl-C"),
        (InfrastructureError("the disk is full"), "the disk is full"),
        (ValueError("secret"), "a bug in autotune (ValueError)"),
    ],
)
def test_a_stop_is_told_with_its_reason(error: BaseException, reason: str) -> None:
    def stop(_: object) -> None:
        raise error

    with webhook_receiver() as receiver, pytest.raises(type(error)), _webhook(receiver) as webhook:
        webhook.beside(stop)(Recovered((), ("python3",)))

    assert receiver.messages[0]["event"] == "stopped"
    assert reason in receiver.messages[0]["text"]


def test_a_study_that_did_not_begin_has_not_stopped() -> None:
    with webhook_receiver() as receiver, pytest.raises(StudyError), _webhook(receiver):
        raise StudyError("another autotune process works on it")

    assert receiver.messages == []


def test_without_an_address_nothing_is_told() -> None:
    told: list[str] = []
    with Webhook(None, STUDY, told.append) as webhook:
        webhook.finish(improved())

    assert told == []


def test_a_refusal_that_may_pass_is_tried_again() -> None:
    told: list[str] = []
    with webhook_receiver(503, 429) as receiver, _webhook(receiver, told) as webhook:
        webhook.finish(improved())

    assert len(receiver.messages) == 3
    assert told == []


@pytest.mark.parametrize(("statuses", "attempts"), [((404,), 1), ((500,) * ATTEMPTS, ATTEMPTS)])
def test_a_refusal_is_told_without_the_address(statuses: tuple[int, ...], attempts: int) -> None:
    told: list[str] = []
    with webhook_receiver(*statuses) as receiver, _webhook(receiver, told) as webhook:
        webhook.finish(improved())

    assert len(receiver.messages) == attempts
    assert told == [f"the webhook did not take the message 'finished': HTTP {statuses[0]}"]


def test_a_webhook_that_is_not_there_is_told_without_the_address() -> None:
    told: list[str] = []
    with Webhook(f"http://127.0.0.1:{free_port()}/{SECRET}", STUDY, told.append, pause_s=0.0) as webhook:
        webhook.finish(improved())

    assert told == ["the webhook did not take the message 'finished': ConnectError"]


@pytest.mark.parametrize("address", ["", "ftp://host/x", "https://", "https://host:port/T0KEN", "T0KEN"])
def test_what_is_no_address_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(ConfigError, match="no address of HTTP") as caught:
        Webhook(address, STUDY, lambda _: None)

    assert SECRET not in str(caught.value)


def test_a_study_tells_its_webhook_and_keeps_the_address_nowhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--launcher", "simulated", "--trials", "1", "--finalists", "1", "--runs", str(tmp_path)]
    with webhook_receiver() as receiver:
        monkeypatch.setattr(sys, "argv", ["autotune", "tune", *INPUTS, *options])
        monkeypatch.setenv("AUTOTUNE_WEBHOOK", receiver.url)
        with pytest.raises(SystemExit) as caught:
            main()
    assert caught.value.code == 0

    assert [message["event"] for message in receiver.messages] == ["first_feasible", "finished"]
    assert SECRET not in "".join(capsys.readouterr())
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
