"""What a person may do to a job from its page, in words: when, and what it means."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.job import TAKES_WORK, JobState
from millrace.core.status import JobStatus


@dataclass(frozen=True, slots=True)
class Action:
    """`question` and `means` stand in the dialog that asks, `done` on the page afterwards."""

    name: str
    button: str
    question: str
    means: str
    done: str
    danger: bool = False
    first: bool = False


PAUSE = Action(
    "pause",
    "Pause",
    "Pause this job?",
    "Workers finish the chunks they hold and take no more of it. Nothing is lost; it goes on when "
    "you resume it.",
    "Paused. Chunks in hand are being finished.",
)
RESUME = Action(
    "resume",
    "Resume",
    "Resume this job?",
    "Workers take its chunks again, from where it stood.",
    "It goes on.",
    first=True,
)
CANCEL = Action(
    "cancel",
    "Cancel",
    "Cancel this job?",
    "Workers finish the chunks they hold; the images that are left get no prediction. What is done "
    "is kept. This cannot be undone.",
    "Cancelled. What was done is kept.",
    danger=True,
)
RETRY = Action(
    "retry",
    "Retry failed",
    "Run the failed images again?",
    "They become a job of their own beside this one, which stays as it is.",
    "This job runs again what failed.",
    first=True,
)
ACTIONS = {action.name: action for action in (PAUSE, RESUME, CANCEL, RETRY)}


def actions_for(job: JobStatus) -> list[Action]:
    """What makes sense now."""
    if job.state in TAKES_WORK:
        return [PAUSE, CANCEL]
    if job.state is JobState.PAUSED:
        return [RESUME, CANCEL]
    return [RETRY] if job.terminal and job.counts.failed else []
