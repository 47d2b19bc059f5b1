"""`python -m rsoup`: the same as the command, with the current folder taken out of the import path first."""

import os
import sys

sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or ".") != os.path.realpath(".")]

from rsoup.cli import main  # noqa: E402

main()
