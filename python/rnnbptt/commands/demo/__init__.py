"""``rnnbptt demo``: a linear RNN learns to forecast next year's sunspots from three centuries of them."""
