"""Reading examples without the handler that made them: the file formats, their order, and what frameworks want."""
