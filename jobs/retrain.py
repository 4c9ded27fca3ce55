"""Train a candidate for a style and put it into use if it is better: one scheduled run.

    python jobs/retrain.py --config jobs/examples/retrain.yaml
    ray job submit --working-dir . -- python jobs/retrain.py --config jobs/examples/retrain.yaml

Running it again resumes. Flags override the file; ``--help`` lists them. The package
``stylemill`` must be installed where the script runs and on the workers; from a checkout that is only uploaded, set
``PYTHONPATH=pipeline`` in the job's runtime environment (jobs/examples/runtime-env.yaml). Exit codes are those of
``stylemill-job``: a run that is done, but with too many failed sources, ends with 0 and a line that begins with ALERT.
"""

import sys

from stylemill.cli.main import main_for_scheduler

if __name__ == "__main__":
    sys.exit(main_for_scheduler(["retrain", *sys.argv[1:]]))
