"""``python -m atldiff.cli``."""

import sys

from atldiff.cli.entry import main

sys.exit(main())
