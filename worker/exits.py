"""How a worker process says why it cannot work."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from millrace.core.errors import MillraceError


def fail(error: MillraceError) -> NoReturn:
    """End the process with one line and the error's exit code.

    At once, for Celery turns exceptions of a boot step into its own exit code.
    """
    print(f"millrace worker: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(error.exit_code)
