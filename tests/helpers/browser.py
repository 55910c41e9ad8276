"""A headless Chromium, spoken to over a pipe (its DevTools protocol)."""

import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


class Page:
    """A file in a browser, and what the browser complained of.

    Attributes:
        complaints: Exceptions, console errors, and requests that were refused.
    """

    def __init__(self, profile: Path) -> None:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if program is None:
            pytest.skip("there is no Chromium")
        reads, to_browser = os.pipe()
        from_browser, writes = os.pipe()
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
        self._process = subprocess.Popen(
            # the numbers are Chromium's choice; sh may know one digit alone
            ["bash", "-c", f'exec "$0" "$@" 3<&{reads} 4>&{writes}', program, *flags]
            + [f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"],
            pass_fds=(reads, writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)
        self._to, self._from = os.fdopen(to_browser, "wb"), os.fdopen(from_browser, "rb")
        self._rest, self._number, self._session = b"", 0, None
        self.complaints: list[Any] = []
        (target,) = [
            each for each in self.call("Target.getTargets")["targetInfos"] if each["type"] == "page"
        ]
        found = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def open(self, place: Path | str) -> None:
        """A file, or an address."""
        self.call("Page.navigate", url=place if isinstance(place, str) else place.as_uri())
        while self._receive().get("method") != "Page.loadEventFired":
            pass

    def resize(self, width: int, height: int) -> None:
        """In CSS pixels; a phone's browser below 600."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def script(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key with its Windows key code, as a hand presses it."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while (answer := self._receive()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def close(self) -> None:
        self.call("Browser.close")
        self._process.wait(timeout=20)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], 60)
            assert ready, "the browser is silent"
            block = os.read(self._from.fileno(), 1 << 20)
            assert block, "the browser is gone"
            self._rest += block
        message, _, self._rest = self._rest.partition(b"\0")
        found = json.loads(message)
        complaint = {
            "Runtime.exceptionThrown": lambda of: of["exceptionDetails"],
            "Runtime.consoleAPICalled": lambda of: of if of["type"] == "error" else None,
            "Log.entryAdded": lambda of: of["entry"] if of["entry"]["level"] == "error" else None,
        }.get(found.get("method"), lambda of: None)(found.get("params"))
        if complaint is not None:
            self.complaints.append(complaint)
        return found
