"""The explorer: runs on the same images -> one HTML file that needs nothing else. page.html, page.css and *.js are the page."""
