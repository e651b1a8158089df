"""One mount alive: from mount(2) and INIT to the last request and the unmount."""
