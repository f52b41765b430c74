"""What the documentation's site adds to its Markdown pages: tables made from the code while it is built."""
