// A virtual machine of one vCPU through /dev/kvm: what the programs that run in L1 share.
#pragma once

#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static int kvm, vm, vcpu;
static uint8_t* ram;
static struct kvm_run* run;

static void must(int result, const char* what) {
    if (result < 0)
        err(1, "%s", what);
}

// RAM from address 0 on; with `chips`, KVM's own interrupt controllers and timer.
static void create_machine(size_t ram_size, int chips) {
    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    must(kvm, "/dev/kvm");
    vm = ioctl(kvm, KVM_CREATE_VM, 0);
    must(vm, "KVM_CREATE_VM");
    if (chips) {
        struct kvm_pit_config pit = {.flags = 0};
        must(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
        must(ioctl(vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
    }
    ram = mmap(NULL, ram_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ram == MAP_FAILED)
        err(1, "mmap");
    struct kvm_userspace_memory_region region = {.memory_size = ram_size,
                                                 .userspace_addr = (uintptr_t)ram};
    must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
    vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    must(vcpu, "KVM_CREATE_VCPU");
    const int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    must(size, "KVM_GET_VCPU_MMAP_SIZE");
    run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED)
        err(1, "mmap of the vCPU");
}
