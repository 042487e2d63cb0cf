#include "AppleC.h"
#include <string.h>

mach_port_t mach_task_self_ = 7;

mach_port_t task_self_trap(void) { return mach_task_self_; }

kern_return_t task_info(mach_port_t task, task_flavor_t flavor, integer_t *info, mach_msg_type_number_t *count) {
    if (task != task_self_trap() || flavor != TASK_VM_INFO || *count != sizeof(task_vm_info_data_t) / sizeof(integer_t)) return 1;
    ((task_vm_info_data_t *)info)->ledger_phys_footprint_peak = 12345678;
    return KERN_SUCCESS;
}

// as a phone answers
int sysctlbyname(const char *name, void *value, size_t *size, void *newValue, size_t newSize) {
    if (strcmp(name, "hw.machine") != 0) return -1;
    if (value != NULL) memcpy(value, "iPhone17,3", *size);
    *size = sizeof("iPhone17,3");
    return 0;
}
