// SPDX-License-Identifier: Apache-2.0

package image

// The shapes are built when they are needed: a launch parses a few documents,
// and a process that parses none pays nothing.

func platformShape() *shape {
	return &shape{members: map[string]*shape{
		"architecture": nil, "os": nil, "os.version": nil, "os.features": nil, "variant": nil,
	}}
}

func descriptorShape() *shape {
	return &shape{members: map[string]*shape{
		"mediaType": nil, "digest": nil, "size": nil, "urls": nil, "annotations": nil, "data": nil,
		"platform": platformShape(), "artifactType": nil,
	}}
}

// documentShape is that of manifests and indexes together, with the members of
// formats that were withdrawn, so that none of them hides behind another case.
func documentShape() *shape {
	d := descriptorShape()
	return &shape{members: map[string]*shape{
		"schemaVersion": nil, "mediaType": nil, "artifactType": nil, "annotations": nil,
		"config": d, "layers": {each: d}, "manifests": {each: d}, "subject": d,
		"fsLayers": nil, "blobs": nil,
	}}
}

func indexShape() *shape {
	d := descriptorShape()
	return &shape{members: map[string]*shape{
		"schemaVersion": nil, "mediaType": nil, "artifactType": nil, "manifests": {each: d}, "subject": d, "annotations": nil,
	}}
}

func configShape() *shape {
	s := platformShape()
	s.members["created"] = nil
	s.members["author"] = nil
	s.members["config"] = &shape{members: map[string]*shape{
		"User": nil, "ExposedPorts": nil, "Env": nil, "Entrypoint": nil, "Cmd": nil, "Volumes": nil,
		"WorkingDir": nil, "Labels": nil, "StopSignal": nil, "ArgsEscaped": nil,
	}}
	s.members["rootfs"] = &shape{members: map[string]*shape{"type": nil, "diff_ids": nil}}
	s.members["history"] = &shape{each: &shape{members: map[string]*shape{
		"created": nil, "created_by": nil, "author": nil, "comment": nil, "empty_layer": nil,
	}}}
	return s
}
