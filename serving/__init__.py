"""Adapters that answer requests: KServe's model server around the decisions of `newfound`."""
