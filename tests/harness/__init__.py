"""What the tests stand on: real processes on free loopback ports, and nothing that pretends.

Each module is one thing a test may want, and is imported by name (`from tests.harness.node import Node`), so that a
test of pure logic loads none of them. The fixtures over them are in `conftest.py`.

`wait`      wait for a state, with a deadline
`ports`     free ports
`process`   a child process: output, signals, end
`watchdog`  ends what a killed test run leaves behind
`redis`     one Redis server
`sentinel`  a master, two replicas, three sentinels
`cluster`   a Redis Cluster
`proxy`     a bad network between two processes
`address`   where a node or a balancer listens
`node`      gateway nodes
`http`      one HTTP request, without a session
`client`    a WebSocket client that keeps what it received
`crowd`     thousands of WebSocket clients that only count
`scripted`  a server that does as it is told, for the client in Python
`wire`      a WebSocket client that can break every rule
`follower`  clients of a channel with history that come back, by the thousand
`haproxy`   a real balancer in front of nodes
`container` a node started with a container's command and environment
`manifests` what is given to Kubernetes
`kustomize` what its overlays are rendered to
`redispods` the Redis of the overlay `cluster`, without Kubernetes
`browser`   real Chromium
`admin`     the admin pages as an operator's browser uses them

And, where a process would be too far away to look into:

`embedded`  the gateway inside an application of the test's own process
`presence`  the presence of two nodes without their services
`sets`      what presence's sets hold, beside what they should hold
`directory` a node's directory over very many connections without sockets
`fakes`     sockets and transports that record
`properties` how property tests are run, and the values they are run with
"""
