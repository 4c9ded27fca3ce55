"""``stylemill vote``: ask people which of two pictures they prefer."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Any

from stylemill.cli.arguments import parse
from stylemill.experiments.config import VoteConfig


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    config = parse(VoteConfig, "vote", "Ask people which of two pictures they prefer.", arguments)
    return 0 if config is None else run(config)


def run(config: VoteConfig) -> int:
    """Serve the page until Ctrl-C or SIGTERM and return the exit code."""
    from stylemill.experiments.ballot import BallotBox, make_questions
    from stylemill.experiments.design import read_evaluations, resolve_model_label
    from stylemill.experiments.vote_server import VoteServer
    from stylemill.storage import Storage, join, resolve
    from stylemill.storage.user_errors import write_config

    storage, out = Storage(config.storage), resolve(config.out)
    table = read_evaluations(storage, [config.evaluation])
    models = [resolve_model_label(storage, name, config.registry) for name in config.model]
    questions = make_questions(table, models=models, num_images=config.num_images, seed=config.seed)
    write_config(storage, config, "vote")
    box = BallotBox(storage, out, questions, seed=config.seed)
    server = VoteServer(storage, box, host=config.host, port=config.port)
    print(f"{len(questions):,} questions; open {server.url} in a browser, stop with Ctrl-C", flush=True)
    _serve(server)
    for voter, num in sorted(box.num_votes.items()):
        print(f"{voter}: {num:,} votes")
    print(f"votes:  {join(out, 'votes')}")
    return 0


def _serve(server: Any) -> None:
    """Serve until SIGINT or SIGTERM; a vote that is being written is finished first."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        while not ended.wait(3600):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        server.shutdown()
        server.server_close()
        thread.join()
