"""The live page: a training -> one HTML file that follows it. page.html, page.css and *.js are the page."""
