// NIR: a Graph of the operations NIR knows, to its nodes and back. convert/nir brings a network
// into that form.
#pragma once

#include <string>

#include "io/model.h"
#include "io/nir_file.h"

namespace nc {

// A foreign network keeps its own semantics: v(0) = 0, a spike where v > v_threshold, then
// v = v_reset, unless its metadata says otherwise (`reset`, `compare`, `v0`, `beta`: ours does).
// LI, LIF, CubaLI, CubaLIF and Delay take dt, in seconds, from the metadata, else this one. Edges
// into a node are added in the file's order; a cycle runs with one step of delay where it re-enters
// the node it was entered by. Nested graphs are laid flat, as "outer.inner". Several inputs become
// selections from one (io/named_inputs.h). output: which to keep of several. Error (kind model)
// names node and field.
Graph nir_to_graph(const NirNode&, const std::string& path, double dt,
                   const std::string& output = "");
// Of a checked graph in NIR's form (convert/nir.h). Error names a node that has no place in NIR.
NirNode graph_to_nir(const Graph&);

// Whole files; T, the data set and its normalisation are in the metadata, as may be dt: then it is
// in the provenance.
constexpr double default_dt = 1e-4;
Model parse_nir_model(const std::vector<uint8_t>& file, const std::string& path,
                      double dt = default_dt, const std::string& output = "");
Model load_nir(const std::string& path, double dt = default_dt, const std::string& output = "");
void save_nir(const std::string& path, const Model&);

// A sum over windows: the depthwise convolution of ones that stands for NIR's SumPool2d.
Conv sum_pool(const ops::PoolOptions&, size_t channels);
bool is_sum_pool(const Conv&);

// Maps of one row and operations along it only: NIR has a shape (C, L) and Conv1d for them.
bool is_of_lines(const Graph&);

// In cycles of edges without delay those that re-enter the node by which the cycle was entered get
// the delay 1. Names decide, not the order of nodes.
Graph delay_cycles(Graph);

}  // namespace nc
