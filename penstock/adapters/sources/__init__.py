"""What yields the pieces of a stream: texts, files, responses, programs. They implement `penstock.ports.Source`."""
