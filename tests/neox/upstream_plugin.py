"""A pytest plugin that applies the patch before GPT-NeoX's own tests import anything (see `test_upstream_tests`)."""

import ifguide_patch

ifguide_patch.apply()
