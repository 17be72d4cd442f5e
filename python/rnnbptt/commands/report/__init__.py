"""``rnnbptt report``: what a file of weights says about gradients, as text, JSON, a picture or a page."""
