"""`python -m spidercap`: the console command where its folder is not on PATH."""

import sys

from spidercap.pipeline.main import main

sys.exit(main())
