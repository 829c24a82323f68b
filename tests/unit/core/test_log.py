"""Logs: one line each on standard error, for people or for machines."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog

from millrace.core.log import about, carried, configure, get_logger
from tests.support import capture_logs


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def unconfigure() -> None:
    """As in a program that uses millrace and sets no logging up."""
    root = logging.getLogger()
    root.handlers[:] = []  # pytest's own, which would take every line
    root.setLevel(logging.WARNING)


def test_a_program_that_configures_nothing_sees_warnings_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    unconfigure()
    log = get_logger("millrace.test")
    log.debug("whisper", job="j")
    log.info("the job ended", job="j")
    assert capsys.readouterr() == ("", "")
    log.warning("a lease expired", job="j", chunk=17)
    log.bind(job="j").error("it broke")
    assert capsys.readouterr() == ("", "a lease expired\nit broke\n")


def test_a_program_may_take_the_fields_with_a_handler_of_its_own() -> None:
    unconfigure()
    with capture_logs() as logs:
        get_logger("millrace.test").bind(job="j").info("finished a chunk", chunk=17)
    (entry,) = logs
    assert (entry["event"], entry["log_level"]) == ("finished a chunk", "info")
    assert (entry["job"], entry["chunk"]) == ("j", 17)


def test_json_is_one_object_a_line_with_stable_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info", "json")
    get_logger("millrace.test").info("finished a chunk", job="j", chunk=17)
    out, err = capsys.readouterr()
    shown = json.loads(err)
    assert out == ""
    assert shown.pop("timestamp").endswith("Z")
    assert shown == {"event": "finished a chunk", "level": "info", "job": "j", "chunk": 17}


def test_an_exception_is_a_field_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    try:
        raise ValueError("boom")
    except ValueError:
        get_logger("millrace.test").exception("it broke")
    shown = json.loads(capsys.readouterr().err)
    assert "ValueError: boom" in shown["exception"]


@pytest.mark.parametrize("form", ["console", "json"])
def test_an_error_may_be_passed_to_its_line(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", form)  # type: ignore[arg-type]
    get_logger("millrace.test").error("it broke", exc_info=ValueError("boom"))
    assert capsys.readouterr().err.count("ValueError: boom") == 1


def test_the_console_form_is_a_sentence_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "console")
    get_logger("millrace.test").bind(job="j").warning("a lease expired", chunk=17)
    out, shown = capsys.readouterr()
    assert out == ""
    assert len(shown.splitlines()) == 1
    assert "a lease expired" in shown
    assert "job=j" in shown
    assert "chunk=17" in shown
    assert "\x1b" not in shown


def test_nothing_in_a_line_steers_the_terminal_of_who_reads_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info", "console")
    hostile = "/\x1b]0;pwned\x07\r\x9b2J\u202e"
    get_logger("millrace.test").info(hostile, path=hostile, keys=[hostile])
    logging.getLogger("a.library").warning("cannot read %s", hostile)
    get_logger("millrace.test").error("it broke", exc_info=ValueError(hostile))
    shown = capsys.readouterr().err
    assert not set(shown) & set("\x1b\x07\r\x9b\u202e")
    assert shown.count(r"/\x1b]0;pwned\x07\r\x9b2J\u202e") == 5
    assert "Traceback" not in shown
    assert len(shown.splitlines()) == 4


@pytest.mark.parametrize("form", ["console", "json"])
def test_lower_levels_are_not_shown(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", form)  # type: ignore[arg-type]
    get_logger("millrace.test").info("whisper")
    logging.getLogger("a.library").info("whisper")
    assert capsys.readouterr().err == ""


def test_libraries_speak_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logging.getLogger("a.library").warning("careful with %s", "that")
    shown = json.loads(capsys.readouterr().err)
    assert (shown["event"], shown["level"]) == ("careful with that", "warning")


@pytest.mark.parametrize("noisy", ["botocore", "urllib3", "celery.worker", "kombu", "PIL.Image"])
def test_noisy_libraries_only_warn(noisy: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", "json")
    logging.getLogger(noisy).info("chatter")
    assert capsys.readouterr().err == ""


def test_configuring_twice_does_not_say_everything_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info", "json")
    configure("info", "json")
    get_logger("millrace.test").info("once")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_lines_are_about_what_was_bound_in_other_threads_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info", "json")
    log = get_logger("millrace.test")

    def work() -> None:
        log.info("ours")
        logging.getLogger("a.library").warning("theirs")

    with ThreadPoolExecutor(1) as pool, about(job="j", chunk=3):
        pool.submit(carried(work)).result()
        with about(job="k"):
            log.info("within")
            log.info("of its own", job="l")
        pool.submit(work).result()
    log.info("afterwards")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    said = [(line["event"], line.get("job"), line.get("chunk")) for line in lines]
    assert said == [
        ("ours", "j", 3),
        ("theirs", "j", 3),
        ("within", "k", 3),
        ("of its own", "l", 3),
        ("ours", None, None),  # what is not carried begins anew
        ("theirs", None, None),
        ("afterwards", None, None),
    ]
