"""The streaming quantile equals numpy's to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.errors import NumericsError
from ifguide.selection.quantile import quantile
from tests.selection.literal import whole

floats = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 1.0000001192092896, -1.0, 1e-45, -1e-45, 3.4e38]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(floats, min_size=1, max_size=60), st.one_of(st.floats(0, 0.9999999), st.sampled_from([0.0, 0.5, 0.99])))
def test_equals_numpy(values, q):
    scores = np.array(values, np.float32)
    found = quantile(whole(scores, [len(scores)], chunk_tokens=7), q)
    assert found == np.quantile(scores.astype(np.float64), q)


@pytest.mark.parametrize("q", [0.0, 0.001, 0.5, 0.9, 0.99, 0.999, 0.999999])
def test_equals_numpy_on_many_scores(q):
    generator = np.random.default_rng(0)
    scores = generator.standard_t(2, 200_003).astype(np.float32)
    assert quantile(whole(scores, [len(scores)], 1 << 16), q) == np.quantile(scores.astype(np.float64), q)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_names_the_first_bad_score(bad):
    scores = np.zeros(20, np.float32)
    scores[[13, 17]] = bad
    with pytest.raises(NumericsError, match=rf"corpus: document 2, token 3: {bad}; score the data again"):
        quantile(whole(scores, [10, 0, 10], chunk_tokens=4), 0.5)
