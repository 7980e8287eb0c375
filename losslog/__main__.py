"""``python -m losslog`` is the command ``losslog``."""

import sys

from losslog.cli import main

sys.exit(main())
