"""The memory of what stands at the cameras, as the pipeline asks for it.

A store that is away costs reports of what is known, no more; so work goes on without it.
"""

from __future__ import annotations

from collections.abc import Sequence

from vault_ml.errors import SceneUnavailable
from vault_ml.event import RecordingEvent
from vault_ml.scene.port import SceneStore
from vault_ml.scene.recall import recall
from vault_ml.scene.standing import dump, load
from vault_ml.telemetry.log import Log
from vault_ml.tracking.track import Track


class SceneMemory:
    """What stands at each camera. Methods may be called from any thread."""

    def __init__(self, store: SceneStore, *, log: Log) -> None:
        """Remember in `store`."""
        self._store = store
        self._log = log

    def known(
        self, event: RecordingEvent, tracks: Sequence[Track], frame_wh: tuple[int, int]
    ) -> dict[int, str]:
        """Which objects of a recording stood there before; remembers what stands now.

        Args:
            event: names the camera and the recording. One that names no camera knows nothing.
            tracks: the objects.
            frame_wh: size of its frames, pixels.

        Returns:
            By the id of its track, which object it is.
        """
        if event.camera is None:
            return {}
        known: dict[int, str] = {}

        def change(text: str | None) -> str:
            at = event.timestamp or event.date or 0
            recalled = recall(load(text), tracks, key=event.key, at=at, frame_wh=frame_wh)
            known.clear()  # it may be asked more than once
            known.update(recalled.known)
            return dump(recalled.standing)

        try:
            self._store.change(event.camera, change)
        except SceneUnavailable as error:
            self._log.warning("scene_away", key=event.key, reason=f"{error} Work goes on without.")
            return {}
        return known

    def close(self) -> None:
        """Close the store."""
        self._store.close()
