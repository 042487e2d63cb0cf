// What the kit takes of Darwin and of Objective-C's enumerations, which stay open to later cases.
#pragma once
#include <stddef.h>

typedef int kern_return_t;
typedef unsigned int mach_port_t;
typedef unsigned int mach_msg_type_number_t;
typedef unsigned int task_flavor_t;
typedef int integer_t;

#define KERN_SUCCESS 0
#define TASK_VM_INFO 22

typedef struct task_vm_info {
    unsigned long long virtual_size;
    unsigned long long phys_footprint;
    long long ledger_phys_footprint_peak;
} task_vm_info_data_t;

extern mach_port_t mach_task_self_; // a variable, so no Swift 6 takes it
mach_port_t task_self_trap(void);
kern_return_t task_info(mach_port_t task, task_flavor_t flavor, integer_t *info, mach_msg_type_number_t *count);
int sysctlbyname(const char *name, void *value, size_t *size, void *newValue, size_t newSize);

typedef enum __attribute__((enum_extensibility(open))) MLComputeUnits : long {
    MLComputeUnitsCPUOnly = 0,
    MLComputeUnitsCPUAndGPU = 1,
    MLComputeUnitsAll = 2,
    MLComputeUnitsCPUAndNeuralEngine = 3,
} MLComputeUnits;

typedef enum __attribute__((enum_extensibility(open))) ThermalState : long {
    ThermalStateNominal = 0,
    ThermalStateFair = 1,
    ThermalStateSerious = 2,
    ThermalStateCritical = 3,
} ThermalState;
