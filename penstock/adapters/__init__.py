"""What touches the outside world, each adapter implementing a port: providers, HTTP, formats, tools."""
