"""``python -m stylemill`` is the command ``stylemill``."""

import sys

from stylemill.cli.main import main

sys.exit(main())
