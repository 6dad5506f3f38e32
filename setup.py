"""What pyproject.toml cannot say: the description on a package index is the README without its
picture and without links into the repository, which lead nowhere there as long as the repository
has no address.
"""

import re
from pathlib import Path

from setuptools import setup

readme = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
without_pictures = re.sub(r"^!\[.*\n+", "", readme, flags=re.MULTILINE)
text = re.sub(r"\[([^\]]+)\]\((?!https?://)[^)]+\)", r"\1", without_pictures)
setup(long_description=text, long_description_content_type="text/markdown")
