"""The server of runs: HTTP in, the functions behind the verbs, HTTP out.

    problems   errors of a request: given, expected, what to do
    limits     the limits of a server, all stated
    queue      the bounded queue, and the one thread that calls models
    work       the kinds of request as functions of rows
    served     a run as a server holds it: its works, batch sizes and description
    bodies     from the bytes of a request to rows
    shown      test examples for visitors without data
    answers    from results to JSON, .npy, PNG and CSV
    guard      what every request passes: host, token, size, headers, errors
    metrics    counts and times for Prometheus
    routes     the addresses
    server     start, and end without losing a request

Nothing that a client sends is executed, unpickled or written.
"""
