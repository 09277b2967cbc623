"""`pytest_plugins = ["kan_impls.bench.plugin"]`: the plugin of perfgate."""

pytest_plugins = ["perfgate.plugin"]
