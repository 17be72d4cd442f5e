"""What becomes of gradients on their way back in time, as a table, a picture and a dict."""
