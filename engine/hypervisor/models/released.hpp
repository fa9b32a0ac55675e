// Released CPU models, oldest first. A model is a file of this folder and its two lines here, and
// none of it ever changes once it is released. The digest is that of everything in it (digest_of):
// a test compares. Included by cpu_model.cpp only.
#pragma once

#include "engine/hypervisor/models/nestor_v1.hpp"

namespace nestor::hv::models {

// clang-format off
inline constexpr auto released = std::to_array<ReleasedModel>({
    // model            since    digest
    {&nestor_v1::model, "0.1.0", "9911aff604e681be3b38babc890b9bac9dc7663c188c56a1e0bbdd50c154738e"},
});
// clang-format on

} // namespace nestor::hv::models
