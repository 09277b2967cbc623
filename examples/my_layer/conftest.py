pytest_plugins = ["perfgate.plugin"]
