"""Opens packet sockets on two interfaces and becomes the program that relays between them (delay-frames), which has
them as standard input and output.

    delay.py INTERFACE INTERFACE PROGRAM MS
"""

import os
import socket
import sys

SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
ETH_P_ALL = 3
ROOM = 16 << 20

one, other, program, ms = sys.argv[1:]
for standard, interface in ((0, one), (1, other)):
    line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    line.bind((interface, ETH_P_ALL))
    line.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    line.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, ROOM)
    line.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
    os.dup2(line.fileno(), standard)
os.execv(program, [program, ms])
