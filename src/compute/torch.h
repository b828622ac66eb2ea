// All of torch that this folder includes, and its CHECK kept apart from ours.
//
// Why:     torch defines a CHECK of its own for everybody; files here include torch through this header only.
#pragma once

#pragma push_macro("CHECK")
#undef CHECK
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#undef CHECK
#pragma pop_macro("CHECK")
