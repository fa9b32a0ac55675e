// outb PORT VALUE: writes a byte to an I/O port from user space. 0xf4 is the debug-exit port.
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>

int main(int argc, char** argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: outb PORT VALUE\n");
        return 2;
    }
    const unsigned long port = strtoul(argv[1], NULL, 0);
    if (port > 0xffff || ioperm(port, 1, 1) != 0) {
        perror("outb");
        return 1;
    }
    outb((unsigned char)strtoul(argv[2], NULL, 0), (unsigned short)port);
    return 0;
}
