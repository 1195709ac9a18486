"""`python -m spidercap`: the same as the console command `spidercap`."""

import sys

from spidercap.pipeline.main import main

sys.exit(main())
