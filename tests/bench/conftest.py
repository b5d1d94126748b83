import sys
from pathlib import Path

# For `bench.support`. At the end, so that no folder of ours hides an installed package.
sys.path.append(str(Path(__file__).parents[2]))
