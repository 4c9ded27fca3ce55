"""The command line: ``stylemill <verb> [--config FILE.yaml] [--field value ...]``.

``stylemill-job <verb> ...``: a verb for schedulers that know success and failure only, such as KubeRay's RayJob.

They would repeat a job that left with 3 (done, but too many sources failed), on a new cluster, for nothing: its run is
committed. So 3 becomes 0 and one line on stderr that begins with ``ALERT``, for whoever watches the logs; the metric
``ray_stylemill_images_total`` and the run's page tell the same. All other codes stay.
"""

from __future__ import annotations

import difflib
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from stylemill import __version__
from stylemill.cli.session import TERMINATED, unwinding_on_sigterm
from stylemill.errors import ConfigError, StylemillError

DONE, FAILED, WRONG_USE, TOO_MANY_FAILED = 0, 1, 2, 3
"""Exit codes: done; failed, resumable; wrong use; done, but too many sources failed."""
INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, as shells have it."""

VERBS = {
    "demo": "the whole story on this machine: real photos, a style trained here, the library repainted",
    "demo-retrain": "a champion, a better candidate, a worse one and a rollback, on this machine",
    "train": "train one style; running it again resumes",
    "stylize": "repaint a library; running it again resumes",
    "evaluate": "measure what styles do to the same images: losses, colour, structure, seconds",
    "optimize": "paint one picture by optimising its pixels, without a network",
    "compare": "decide which of two styles is better, by measurements and votes",
    "vote": "ask people which of two pictures they prefer, on a local web page",
    "manifest": "verify, summarise, repair or tidy up what committed runs wrote",
    "retrain": "train a candidate, and make it the champion if it is better; running it again goes on",
    "models": "bring models from other implementations, take them elsewhere, show what one is",
    "styles": "keep versions of styles and choose which one is in use",
    "submit": "run a verb as a job on a Ray cluster",
    "jobs": "list submitted jobs, show how far one is, print its log, stop it",
}
"""Each verb is a module of this package (``-`` becomes ``_``) with ``main(arguments) -> exit code``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; every expected failure is one line on stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of styles and sources may hold what a terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return DONE if arguments else WRONG_USE
    if arguments[0] in ("-V", "--version"):
        print(f"stylemill {__version__}")
        return DONE
    with unwinding_on_sigterm() as terminated:
        try:
            _start_logging(os.environ.get("STYLEMILL_LOG", "WARNING"))
            return _run(arguments[0], arguments[1:])
        except ConfigError as error:
            print(f"stylemill: {error}", file=sys.stderr)
            return WRONG_USE
        except StylemillError as error:
            print(f"stylemill: {' '.join(str(error).split())}", file=sys.stderr)
            return FAILED
        except ModuleNotFoundError as error:
            lack = f"{sys.executable} lacks the module {error.name!r}"
            print(f"stylemill: {lack}; install stylemill's dependencies there", file=sys.stderr)
            return FAILED
        except KeyboardInterrupt:
            print("stylemill: interrupted; the same command resumes", file=sys.stderr)
            return TERMINATED if terminated.is_set() else INTERRUPTED
        except BrokenPipeError:
            # The reader of our output has left; leave too, without Python's complaint about the closed pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED


def _start_logging(name: str) -> None:
    level = logging.getLevelNamesMapping().get(name.upper())
    if level is None:
        raise ConfigError("STYLEMILL_LOG", name, "is no log level", "use DEBUG, INFO, WARNING or ERROR")
    logging.basicConfig(level=max(level, logging.WARNING), format="%(levelname)s %(name)s: %(message)s")
    # Ours alone: what libraries tell while they are debugged has the headers of requests in it, and so session tokens.
    for package in ("stylemill",):
        logging.getLogger(package).setLevel(level)


def _run(verb: str, arguments: list[str]) -> int:
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        cure = f"did you mean {close[0]}?" if close else "use one of " + ", ".join(VERBS)
        raise ConfigError("verb", verb, "is unknown", cure)
    module = importlib.import_module("stylemill.cli." + verb.replace("-", "_"))
    code: int = module.main(arguments)
    return code


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    name = Path(sys.argv[0]).name if sys.argv[0].endswith("stylemill") else "stylemill"
    return (
        f"usage: {name} <verb> [--config FILE.yaml] [--field value ...]\n\n{verbs}\n\n"
        f"`{name} <verb> --help` lists a verb's flags. Locations are paths or URIs such as s3://bucket/prefix."
    )


ALERT = "ALERT"


def main_for_scheduler(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; return its exit code, or 0 and an alert where that is 3."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    code = main(arguments)
    if code != TOO_MANY_FAILED:
        return code
    verb = " ".join(arguments[:1])
    print(
        f"{ALERT} stylemill {verb}: done, but more than max_failed_fraction of the sources failed (exit code 3, told "
        "to the scheduler as 0: doing it again changes nothing); see the run's page or `stylemill manifest summary`",
        file=sys.stderr,
        flush=True,
    )
    return DONE


if __name__ == "__main__":
    sys.exit(main())
