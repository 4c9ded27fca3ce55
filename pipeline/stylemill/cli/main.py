"""The command line: ``stylemill <command> [--config FILE.yaml] [--field value ...]``.

``main`` is the program ``stylemill``: it finds the module of a command (in the code: a verb), runs it and turns every
expected error into one line on stderr and an exit code. Nothing heavy is imported before a verb needs it.
``main_for_scheduler`` is the program ``stylemill-job``, for schedulers to which every exit code but 0 is a failure.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from stylemill import __version__
from stylemill.cli.output import COMMON_FLAGS, OutputOptions, output_of, split_common_flags
from stylemill.cli.session import TERMINATED, unwinding_on_sigterm
from stylemill.errors import ConfigError, NothingPainted, StylemillError

DONE, FAILED, WRONG_USE, TOO_MANY_FAILED = 0, 1, 2, 3
"""Exit codes: done; failed, resumable; wrong use; done, but too many sources failed."""
INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, the same as a shell's."""
ALERT = "ALERT"
_NOTHING_PAINTED = -1
"""Within this module: done, but without one image. For a person that is a failure, a scheduler must not repeat it."""

VERBS = {
    "demo": "train a style and repaint a small library of real photos on this machine; no download",
    "paint": "paint photos of your own in seconds, without Ray",
    "demo-retrain": "a champion, a better candidate, a worse one and a rollback, on this machine",
    "train": "train one style; running it again resumes",
    "stylize": "repaint a library; running it again resumes",
    "evaluate": "measure what styles do to the same images: losses, colour, structure, seconds",
    "optimize": "paint one picture by optimising its pixels, without a network",
    "compare": "decide which of two styles is better, by measurements and votes",
    "vote": "ask people which of two pictures they prefer, on a local web page",
    "manifest": "verify, summarise, repair or clean up what committed runs wrote",
    "retrain": "train a candidate and make it the champion if it is better; running it again resumes",
    "models": "import models from other implementations, export them, show details of one",
    "styles": "keep versions of styles and choose which one is in use",
    "submit": "run a command as a job on a Ray cluster",
    "jobs": "list submitted jobs, show the progress or the log of one, stop it",
    "completion": "print the script that completes commands and flags in bash, zsh or fish",
}
"""Each verb is a module of this package (``-`` becomes ``_``) with ``main(arguments) -> exit code``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; every expected failure is one line on stderr."""
    code = _main(list(sys.argv[1:] if arguments is None else arguments))
    return FAILED if code == _NOTHING_PAINTED else code


def _main(arguments: list[str]) -> int:
    _occupy_standard_descriptors()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of styles and sources may hold what a terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    code = DONE
    try:
        code = _run_and_report(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # here a closed pipe is an exception; when Python exits it is a message on stderr
    except BrokenPipeError:
        # The reader of our output has exited, as in `stylemill --help | head -1`: exit too, without a message.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or FAILED
    return code


def _occupy_standard_descriptors() -> None:
    """Open the null device in the place of standard streams that were closed when the process started (``<&-``).

    Otherwise the next file that is opened gets such a number, and a child process takes it for its own stream.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one


def _run_and_report(arguments: list[str]) -> int:
    try:
        options, arguments = split_common_flags(arguments)
    except ConfigError as error:
        print(f"stylemill: {error}", file=sys.stderr)
        return WRONG_USE
    with output_of(options, arguments) as output:
        try:
            code, failure = _run_and_explain(arguments, options)
        except BrokenPipeError:
            raise
        except Exception as error:  # a fault of stylemill's own: its traceback follows
            output.finish(FAILED, error)
            raise
        output.finish(FAILED if code == _NOTHING_PAINTED else code, failure)
        return code


def _run_and_explain(arguments: list[str], options: OutputOptions) -> tuple[int, BaseException | None]:
    """Return the exit code, and the expected failure that caused it, which has been printed as one line on stderr."""
    with unwinding_on_sigterm() as terminated:
        try:
            return _run(arguments, options), None
        except ConfigError as error:
            print(f"stylemill: {error}", file=sys.stderr)
            return WRONG_USE, error
        except StylemillError as error:
            print(f"stylemill: {' '.join(str(error).split())}", file=sys.stderr)
            return _NOTHING_PAINTED if isinstance(error, NothingPainted) else FAILED, error
        except ModuleNotFoundError as error:
            problem = f"the module {error.name!r} is not installed for {sys.executable}"
            print(f"stylemill: {problem}; install stylemill's dependencies there", file=sys.stderr)
            return FAILED, error
        except KeyboardInterrupt as interrupt:
            resumes = "" if "paint" in arguments[:1] else "; the same command resumes"
            print(f"stylemill: interrupted{resumes}", file=sys.stderr)
            return TERMINATED if terminated.is_set() else INTERRUPTED, interrupt


def _run(arguments: list[str], options: OutputOptions) -> int:
    if arguments[:1] == ["help"] and len(arguments) > 1:  # `help train` is `train --help`
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return DONE if arguments else WRONG_USE
    if arguments[0] in ("-V", "--version"):
        print(f"stylemill {__version__}")
        return DONE
    _start_logging(options.log_level or os.environ.get("STYLEMILL_LOG", "WARNING"))
    verb, *rest = arguments
    if verb not in VERBS:
        from stylemill.cli.arguments import unknown_command

        raise unknown_command(verb, VERBS)
    return _run_verb(verb, rest)


def _run_verb(verb: str, arguments: list[str]) -> int:
    module = importlib.import_module("stylemill.cli." + verb.replace("-", "_"))
    code: int = module.main(arguments)
    return code


def _start_logging(name: str) -> None:
    level = logging.getLevelNamesMapping().get(name.upper())
    if level is None:
        raise ConfigError("STYLEMILL_LOG", name, "is not a log level", "use DEBUG, INFO, WARNING or ERROR")
    logging.basicConfig(level=max(level, logging.WARNING), format="%(levelname)s %(name)s: %(message)s")
    # Below WARNING only stylemill logs: debug messages of libraries hold the headers of requests, with session tokens.
    logging.getLogger("stylemill").setLevel(level)


def _usage() -> str:
    verbs = _two_columns(VERBS)
    name = Path(sys.argv[0]).name if sys.argv[0].endswith("stylemill") else "stylemill"
    return (
        f"usage: {name} <command> [--config FILE.yaml] [--field value ...]\n\n{verbs}\n\n"
        f"`{name} <command> --help` lists the flags of a command. Locations are paths or URIs such as s3://bucket/prefix."
        f"\n\nFlags of every command:\n{_two_columns(COMMON_FLAGS)}\n\n{_ENVIRONMENT_AND_EXIT_CODES}"
    )


_ENVIRONMENT_AND_EXIT_CODES = """\
Environment:
  STYLEMILL_LOG       level of stylemill's log on stderr: DEBUG, INFO, WARNING (the default) or ERROR
  STYLEMILL_REGISTRY  location of the registry that registry:STYLE refers to

Exit codes:
  0    done
  1    failed; the same command resumes
  2    wrong use; nothing was started
  3    done, but more than max_failed_fraction of the sources failed
  130  interrupted by Ctrl-C; 143 by SIGTERM; the same command resumes"""


def _two_columns(texts: Mapping[str, str]) -> str:
    width = max(map(len, texts))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in texts.items())


def main_for_scheduler(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; return its exit code, but 0 and an alert for a run that is committed whatever came of it.

    Schedulers such as KubeRay's RayJob repeat every job that does not exit with 0, on a new cluster. After exit code 3
    (done, but too many sources failed), or 1 for a run that found not one image, a repetition is useless, because the
    run is committed. So both become 0 and one line on stderr that begins with ``ALERT``, for whoever watches the logs;
    the metric ``ray_stylemill_images_total`` and the run's page show the same. All other codes stay.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    code = _main(arguments)
    whys = {
        TOO_MANY_FAILED: "more than max_failed_fraction of the sources failed (exit code 3,",
        _NOTHING_PAINTED: "not one source is an image (exit code 1,",
    }
    if code not in whys:
        return code
    verb = " ".join(arguments[:1])
    print(
        f"{ALERT} stylemill {verb}: done, but {whys[code]} reported to the scheduler as 0 because repeating the job "
        "changes nothing); see the run's page or `stylemill manifest summary`",
        file=sys.stderr,
        flush=True,
    )
    return DONE


if __name__ == "__main__":
    sys.exit(main())
