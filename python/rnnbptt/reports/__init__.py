"""What becomes of gradients on their way back in time, told as a table, a picture and a dict."""
