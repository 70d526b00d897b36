def broadcast_data(keys, data, datatype):
    """One process: nobody to send to."""
    assert all(data[key].dtype == datatype for key in keys), [data[key].dtype for key in keys]
    return {key: data[key].clone() for key in keys}
