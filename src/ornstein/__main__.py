"""`python -m ornstein` is the same as `ornstein`."""

import sys

from ornstein.cli import main

sys.exit(main())
