//! Nothing: the examples are beside this folder, one file each.
