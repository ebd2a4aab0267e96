"""The parent's side of a worker process: start it, ask it, say what became of it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from measure import available_memory

_WORKER = Path(__file__).resolve().parent / "worker.py"
_DATA = 0.9  # share of the memory that is free at the start which one worker may take


class PeerError(Exception):
    """A peer could not do what it was asked; the message is one sentence."""


class Client:
    """One worker under one interpreter. Use as a context manager: leaving it ends the process.

    Args:
        python: the interpreter.
        threads: of torch and of OpenMP in the worker.
        timeout: seconds that one answer may take.

    Raises:
        PeerError: there is no such interpreter.
    """

    def __init__(self, python: str, threads: int, timeout: float) -> None:
        self._timeout = timeout
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  closed in close
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        env.setdefault("DGLBACKEND", "pytorch")
        try:
            self._process = subprocess.Popen(
                [python, str(_WORKER), str(threads), str(int(_DATA * available_memory()))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=env,
                text=True,
                bufsize=1,
            )
        except OSError as error:
            self._log.close()
            raise PeerError(f"cannot run the interpreter {python}: {error.strerror}") from error

    def ask(self, op: str, **request: Any) -> Any:
        """The worker's answer.

        Raises:
            PeerError: it answered with an error, ended, or took too long (then it is ended).
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **request}) + "\n")
        except BrokenPipeError:
            raise PeerError(self._epitaph()) from None
        ready, _, _ = select.select([self._process.stdout], [], [], self._timeout)
        if not ready:
            self._process.kill()
            self._process.wait()
            raise PeerError(f"no answer to '{op}' within {self._timeout:g} s; raise --timeout")
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(self._epitaph())
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer["ok"]

    @property
    def alive(self) -> bool:
        """Whether the process can answer again."""
        return self._process.poll() is None

    def _epitaph(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        last = self._log.read().strip().splitlines()[-1:]
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        return f"its process ended {how}: {last[0] if last else 'nothing on standard error'}"

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
