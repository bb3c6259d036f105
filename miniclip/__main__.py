"""`python -m miniclip`, the same as the command `miniclip`."""

import sys

from miniclip.cli import main

sys.exit(main())
