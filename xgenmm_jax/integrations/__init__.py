"""Our models inside others' evaluation toolkits: adapters that the toolkits import, never the package itself."""
