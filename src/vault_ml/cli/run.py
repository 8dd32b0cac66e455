"""`vault-ml run`: the worker."""

from __future__ import annotations


def run() -> None:
    """Work: receive events, look at their recordings, publish what was seen.

    Everything is set by environment variables; `vault-ml config` prints what is in force, and
    `vault-ml check` tries it out.
    """
    import os
    import signal

    # Until the worker listens, nothing has begun that would have to be brought to an end. As
    # process 1 of a container we would not even hear the signal.
    signal.signal(signal.SIGTERM, lambda *_words: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # see `signals.begin_again`
    from vault_ml.app import work

    work(os.environ)
